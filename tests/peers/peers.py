"""Synapse as a real peer: every story is told in both directions, and the results are shown as a table.

    MYELIN_BIN=target/debug/myelin python tests/peers/peers.py [--pair synapse synapse] [--only WORD] [--versions 6,12]
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import directory, encryption, ephemeral, large, media, membership, outages, rooms  # noqa: F401 (they register their stories)
from authority import Authority
from network import Network
from policy import PolicyServer
from server import Myelin, Synapse
from story import Stage, scenarios
from third_party import IdentityServer

KINDS = {"myelin": Myelin, "synapse": Synapse}
# Stories told at once: both servers have little to do most of the time.
AT_ONCE = 3


class World:
    def __init__(self, directory, pair):
        self.directory = directory
        self.authority = Authority(directory)
        self.network = Network()
        self.identity, self.policy = IdentityServer(self.authority), PolicyServer(self.authority)
        labels = [f"{kind}-{n}" if pair[0] == pair[1] else kind for n, kind in enumerate(pair, 1)]
        self.servers = [KINDS[kind](label, self) for kind, label in zip(pair, labels)]
        # Two Myelins and a Synapse, where there is a Myelin.
        kind = "myelin" if "myelin" in pair else "synapse"
        self.extra = KINDS[kind](f"{kind}-3", self)

    def __enter__(self):
        try:
            for server in self.all():
                server.start()
            for server in self.all():
                server.wait_until_ready()
        except BaseException:
            # Also when one of them ends the run: the others are not left behind.
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in self.all():
            server.stop()
        self.identity.close()
        self.policy.close()
        self.network.close()

    def all(self):
        return [*self.servers, self.extra]

    def third(self, *others):
        return next(server for server in self.all() if server not in others)


def main():
    arguments = parse()
    started = time.monotonic()
    results = {}
    with tempfile.TemporaryDirectory(prefix="peers-", dir=os.environ.get("TMPDIR")) as directory:
        world = World(Path(directory), arguments.pair)
        try:
            with world:
                tell_all(world, arguments, results)
        finally:
            failed = [key for key, (problem, _) in results.items() if problem]
            if failed or not results or arguments.logs:
                show_logs(world)
    show(results, arguments.pair)
    print(f"{len(results)} stories, {len(failed)} failed, {time.monotonic() - started:.0f} s")
    sys.exit(1 if failed or not results else 0)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs=2, choices=KINDS, default=["myelin", "synapse"])
    parser.add_argument("--only", help="stories whose name contains this", default="")
    parser.add_argument("--versions", type=lambda text: text.split(","), help="only these room versions")
    parser.add_argument("--one-way", action="store_true", help="only with the first of the pair as home")
    parser.add_argument("--logs", action="store_true", help="show the ends of the servers' logs in any case")
    return parser.parse_args()


def tell_all(world, arguments, results):
    first, second = world.servers
    directions = [(first, second)] if arguments.one_way else [(first, second), (second, first)]
    stories = [
        (scenario, Stage(world, home, away, version))
        for scenario in scenarios
        if arguments.only in scenario.name
        for version in scenario.versions
        if not arguments.versions or version in arguments.versions
        for home, away in directions
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda story: tell(*story, results), [story for story in stories if not story[0].alone]))
    for scenario, stage in stories:
        if scenario.alone:
            tell(scenario, stage, results)
            world.network.heal()


def tell(scenario, stage, results):
    started = time.monotonic()
    problem = stage.tell(scenario)
    took = time.monotonic() - started
    results[scenario.name, stage.version, stage.home.label] = (problem, took)
    print(f"{'FAILED' if problem else 'ok':6} {took:5.1f} s  {scenario.name}, version {stage.version}, made at {stage.home}", flush=True)
    if problem:
        print("       " + problem.replace("\n", "\n       "), flush=True)


def show(results, pair):
    homes = list(dict.fromkeys(home for _, _, home in results))
    print(f"\n{'story':36} version  " + "  ".join(f"made at {home:10}" for home in homes))
    for name, version in dict.fromkeys((name, version) for name, version, _ in sorted(results, key=order)):
        cells = [results.get((name, version, home)) for home in homes]
        shown = ["-" if cell is None else "FAILED" if cell[0] else f"ok {cell[1]:.1f} s" for cell in cells]
        print(f"{name:36} {version:>7}  " + "  ".join(f"{cell:18}" for cell in shown))


def order(key):
    name, version, _ = key
    return [scenario.name for scenario in scenarios].index(name), int(version)


def show_logs(world):
    for server in world.all():
        print(f"--- the end of the log of {server} ({server.name}):\n{server.end_of_log()}")


if __name__ == "__main__":
    main()
