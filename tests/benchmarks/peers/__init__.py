"""The same work on this project's engines and on others, in one run and on the same data.

Every engine is a process of its own, under an interpreter of its own if it needs one: none of them is a dependency.
"""
