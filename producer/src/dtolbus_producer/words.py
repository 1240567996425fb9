"""Whether a text can stand in tables, file headers and on a screen: a channel's name, its unit, its sensor. Pure."""

MOST_CHARACTERS = 200
_SHOWN = 40


def word_fault(said: str) -> str:
    """Return why the text cannot be one, with what is allowed; empty where it can."""
    if len(said) > MOST_CHARACTERS:
        return f"{said[:_SHOWN]!r}… has {len(said)} characters: give at most {MOST_CHARACTERS}"
    if not said.isprintable():
        return f"{said!r} has characters that cannot be shown: leave them out"
    return ""
