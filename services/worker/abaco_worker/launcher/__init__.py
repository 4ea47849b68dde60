"""The launcher: the first process of a container that is started before there is anything to run.

A static C program, of which ``main.c`` tells what it does; :mod:`.build` makes it,
:mod:`.request` and :mod:`.report` are what goes in and out, and ``launcher_client.py``
talks to it.
"""
