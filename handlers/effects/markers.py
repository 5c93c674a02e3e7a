"""What is made for a request carries its mark, by which whoever goes on with the request finds it
again.
"""

#: The property, or item of metadata, that holds the mark (`ProjectContext.mark`).
MARK = "ecs_request"
#: Which of the things that the request makes it is.
PART = "ecs_part"
