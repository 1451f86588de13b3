"""This package beside its peers: the same models, the same conditions, a fresh process per run.

    python examples/benchmarks/compare_peers.py --list
    python examples/benchmarks/compare_peers.py --run --model normal_means --seeds 0
    python examples/benchmarks/compare_peers.py --run --data-dir DATA --cores 0
    python examples/benchmarks/compare_peers.py --table
    python examples/benchmarks/compare_peers.py --page

`--run` measures what has no record yet, one line of JSON per run in `results/peers.jsonl`, and may
be stopped and started again at any time; `--again` measures anew, and the newest record counts.
Runs of one model and seed follow each other, method by method. A run that takes longer than
`--limit` seconds is recorded as such, and neither larger budgets nor other seeds are tried.
`--launcher` puts a command before every run, such as `nice -n 5` or one that waits for a free core.
Peers that need another environment are measured by the same program under its interpreter, into
the same records. Where JAX finds a GPU the program measures there; the tables keep devices apart.
"""

import argparse
import itertools
from collections.abc import Iterator

import peers_page
import suite
from peers import process
from peers.records import RESULTS, load

RECORDS = RESULTS / "peers.jsonl"
MODELS = (
    "eight_schools",
    "eight_schools_centred",
    "german_credit",
    "seeds",
    "brownian_motion",
    "ionosphere",
    "sonar",
    "breast_cancer",
)


def pieces(options: argparse.Namespace) -> Iterator[process.Piece]:
    """What is asked for, first what the summary rests on; seed by seed, model by model within."""
    chosen, models = process.installed(options.method), []
    for model in options.model or MODELS:
        try:
            suite.by_name(model).load(options.data_dir)
            models.append(model)
        except FileNotFoundError as error:
            print(f"{model}: skipped, {error}", flush=True)
    for headline in (True,) if options.headline else (True, False):
        for seed, model, peer in itertools.product(options.seeds, models, chosen):
            for budget in options.budgets or peer.budgets:
                if (budget in peer.headline) == headline:
                    yield model, peer.name, budget, seed


def main(argv: list[str] | None = None) -> None:
    """Does what the command line asks for; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="the methods and their settings")
    parser.add_argument("--table", action="store_true", help="print the tables")
    parser.add_argument("--page", action="store_true", help="write the tables of the docs page")
    parser.add_argument("--model", nargs="+", help="names in the suite; default: eight models")
    parser.add_argument("--method", nargs="+", help="names; default: all that are installed")
    parser.add_argument("--headline", action="store_true", help="what the summary rests on")
    parser.add_argument("--budgets", type=int, nargs="+", help="default: each method's own")
    process.add_options(parser, RECORDS)
    options = parser.parse_args(argv)
    if options.child:
        process.child(options, suite.by_name)
        return
    if options.list:
        print(peers_page.methods())
        process.installed(options.method)
    if options.run:
        process.measure(__file__, pieces(options), options)
    if options.table:
        print(peers_page.tables(load(options.records)))
    if options.page:
        peers_page.write(load(options.records))


if __name__ == "__main__":
    main()
