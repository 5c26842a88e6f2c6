"""Records judged anew from the journal alone: those of one charge, or all of them.

`charge` replays one charge for its evidence, `rulebook` a whole journal for its audit.
"""
