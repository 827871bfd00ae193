"""A judge in other people's libraries: a module for each. None is imported before it is asked for, and none is needed.

`docs/integrations.md` has an example of each.
"""
