"""What stands behind `trit run`: a chat on a terminal, or one answer.

settings, prompt      what was asked, and of which texts
screen, answer, markdown   where an answer goes, and how it is shown while it is written
once, stats           one answer, and what it took
talk, conversation, commands, session   a chat, what was said in it, /commands, where it is kept
"""
