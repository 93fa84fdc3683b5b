"""What changed between models that somebody already has: ``bertft diff`` and `bertft.diff`.

run        the command and the function: settings -> run folder or memory -> `result.Difference`
 +-- models    the encoders and the text, checked before anything is written
 +-- parts     one entry per question: its rows, its lines of the verdict, its figures
 +-- verdict   the lines of all parts, at most twelve, and the top of the page
"""
