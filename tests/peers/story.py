"""What a scenario is: a story of two servers, told once per direction and room version."""

import traceback

from person import Person
from waiting import eventually

NEWEST = "12"
# The versions that both speak.
VERSIONS = [str(version) for version in range(1, 13)]

scenarios = []


def scenario(versions=(NEWEST,), alone=False):
    """`alone`: no other story is told meanwhile, since servers stop or the network is cut."""

    def register(tell):
        scenarios.append(Scenario(tell, tuple(versions), alone))
        return tell

    return register


class Scenario:
    def __init__(self, tell, versions, alone):
        self.name = tell.__name__
        self.tell = tell
        self.versions = versions
        self.alone = alone


class Stage:
    """`home` is where the room is made, `away` comes to it."""

    def __init__(self, world, home, away, version):
        self.world = world
        self.home, self.away = home, away
        self.version = version

    def at_home(self, name="home"):
        return Person(self.home, name)

    def at_away(self, name="away"):
        return Person(self.away, name)

    def couple(self, **options):
        """One person at each server, in one public room."""
        host, guest = self.at_home(), self.at_away()
        room = host.create_room(self.version, **options)
        guest.join(room, self.home.name)
        host.sees_membership(room, guest, "join")
        # A first sync shows no room that one has been put out of by then.
        guest.sees_membership(room, guest, "join")
        return host, guest, room

    def tell(self, scenario):
        """What went wrong, or `None`."""
        try:
            scenario.tell(self)
        except Exception as error:
            trace = traceback.extract_tb(error.__traceback__)
            lines = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.line}" for frame in trace[1:]]
            return "\n".join([f"{type(error).__name__}: {error}", *lines])
        return None


def agree(room, *people, seconds_max=60):
    """Every server has the same full state of the room."""
    states = {}

    def all_equal():
        states.update({person: person.full_state(room) for person in people})
        first, *others = states.values()
        return all(first == other for other in others)

    try:
        eventually(all_equal, "equal states", seconds_max)
    except AssertionError:
        first, *others = people
        for other in others:
            keys = states[first].keys() | states[other].keys()
            different = {key: (states[first].get(key), states[other].get(key)) for key in keys}
            different = {key: pair for key, pair in different.items() if pair[0] != pair[1]}
            assert not different, f"{first} and {other} disagree in {room}: {different}"


def refused(status, act, *arguments):
    """Asserts that `act` is refused with `status`."""
    from person import Refused

    try:
        act(*arguments)
    except Refused as refusal:
        assert refusal.status == status, f"refused, but not with {status}: {refusal}"
        return refusal
    raise AssertionError(f"{act.__qualname__}{arguments} was not refused")
