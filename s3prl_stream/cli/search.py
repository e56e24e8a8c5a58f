"""Query by example (SUPERB's QbE): look for each query in each document with frozen features, by dynamic time warping,
and print the maximum term-weighted value.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from s3prl_stream.cli import named
from s3prl_stream.cli.train import add_noise_options, noise_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queries", metavar="SET", action="append", required=True, help="a packed set of queries")
    parser.add_argument("--data", metavar="SET", action="append", required=True, help="a packed set of documents")
    parser.add_argument(
        "--upstream", metavar="NAME", required=True, help="a run, checkpoint, fbank, Hugging Face folder"
    )
    parser.add_argument("--label", metavar="COLUMN", default="text", help="what a query says (default: %(default)s)")
    parser.add_argument("--document-label", metavar="COLUMN", help="what a document says (default: as --label)")
    parser.add_argument("--queries-where", metavar="EXPR", help="queries to look for")
    parser.add_argument("--where", metavar="EXPR", help="documents to look in")
    parser.add_argument("--layer", metavar="N", type=int, help="hidden state to compare, from 0 (default: the best)")
    add_noise_options(parser)
    parser.add_argument("--device", help="cpu, cuda ... (default: the GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """0 when searched; 1 if some clips could not be read."""
    from s3prl_stream.shards.shardset import open_shards

    queries, documents = open_shards(args.queries), open_shards(args.data)  # before torch is imported
    from s3prl_stream.downstream.search import search_queries

    result = search_queries(
        queries,
        documents,
        where=args.queries_where,
        document_where=args.where,
        **named(args, "upstream", "label", "document_label", "layer", "device"),
        **noise_settings(args),
    )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{result.queries} queries in {result.documents} documents", end="")
        print(f", {result.damaged} clips could not be read" if result.damaged else "")
        for layer, value in result.max_twv_of_layers.items():
            print(f"  layer {layer:2}  max. TWV {value:.4f}{'  (best)' if layer == result.layer else ''}")
    return 1 if result.damaged else 0
