"""Distributed functions: drivers that make jobs from the results of jobs, and what those jobs call.

Nothing is imported here: a job that needs `functions.ecm` must not pay for sympy.
"""
