"""The long form: a mixed load on two workers for minutes, while one kind of fault strikes again and
again.
"""
