"""Requests with an ``Idempotency-Key``: carried out once, however often they are sent.

=====================  ===========================================================================
module                 is about
=====================  ===========================================================================
``claim``              what the bucket holds of a key, pure
``keys``               who may carry a request out, and what came of it, in the bucket
``attempt``            one try: what its event is recognised by, and when it must look for it
``endpoint``           the same around every endpoint
=====================  ===========================================================================

Theory, in the order in which it happens (docs/adr/0035 has the proof):

1. The first process to see a key puts a claim into the bucket. It holds the cause that every event
   of this request will name, and a place in the log before all of them.
2. For ``OWN_SECONDS`` the claim is its maker's, who appends without looking. Others wait for its
   answer, and when they have waited so long they open the claim.
3. Of an open claim anybody may carry the request out, and the maker still may. So everybody looks
   before each append whether an event with the cause is there. The append has the condition that
   the history is as it was before the look: of two who see nothing one gets in, and the other
   looks again.
4. The answer goes into the bucket. Where it is missing it is made from the event.
"""
