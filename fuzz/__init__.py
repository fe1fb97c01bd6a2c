"""Coverage-guided fuzzing of all that takes bytes from strangers: `make fuzz`.

`targets` has what is run, `run` feeds it, `seeds` makes the corpus that it starts from, and
`mutation` mutates that where atheris is not.
"""
