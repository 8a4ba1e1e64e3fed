"""Names for notebooks that were given none."""

import random
from collections.abc import Container

_FIRST = (  # noqa: SIM905 - a list of words is read best as a text
    "able bold brave bright calm clever cosy curious daring eager early fair fleet fond frank free"
    " gentle glad golden happy hardy honest jolly keen kind lively lucky lunar mellow merry mighty"
    " modest neat nimble noble patient plucky polar prompt proud quick quiet rapid ready royal sage"
    " shiny silent silver smart snug solar solid spry steady stout sunny swift tidy vivid warm wise"
).split()
_SECOND = (  # noqa: SIM905
    "ant badger bat bear beaver bee bison boar crane crow deer dingo dove duck eagle eel elk ermine"
    " falcon ferret finch fox frog gecko goat goose hare hawk heron ibex jackal jay kite koala lark"
    " lemur lion llama lynx marten mole moose newt orca otter owl panda perch pike puffin quail"
    " rabbit raven robin seal shrew skink sloth snail sparrow squid stork swan tapir tern tiger"
    " toad trout viper vole walrus wasp whale wolf wombat wren yak zebra"
).split()


def find_name(taken: Container[str]) -> str:
    """A free name like ``brave-otter``."""
    for _ in range(1000):
        name = f"{random.choice(_FIRST)}-{random.choice(_SECOND)}"  # noqa: S311 - no secret
        if name not in taken:
            return name
    return f"notebook-{random.randrange(10**9)}"  # noqa: S311
