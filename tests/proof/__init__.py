"""The promises numbered, and harnesses that try to break the shipped code.

`python -m proof quick|full` from this folder's parent, or `make prove`. Each harness is a module with
`prove(level) -> list[Outcome]`; what a machine cannot run is an Outcome with `not_run`.
"""
