"""The launcher: a static C program that starts an image's command in a container that is ready.

``main.c`` describes it, :mod:`.build` compiles it. ``domain/run_request.py`` and
``domain/run_report.py`` are the worker's side of its messages, ``sandbox/launcher_client.py``
exchanges them.
"""
