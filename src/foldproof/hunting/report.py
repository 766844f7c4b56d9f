"""The corpus in words: counts, clusters with their programs, and coverage."""

from __future__ import annotations

from collections.abc import Iterator

from foldproof.formatting import format_count
from foldproof.hunting.corpus import Cluster, Corpus
from foldproof.hunting.setup import Setup

ORDER = ("process", "crash", "pass", "kernel", "numbers", "suspect", "foldproof")


def describe_status(corpus: Corpus) -> Iterator[str]:
    """Yield lines: of each setup, the outcomes of its programs, and its clusters."""
    for key in corpus.setups():
        outcomes = corpus.outcomes(key)
        programs = format_count(sum(outcomes.values()), "program")
        minutes = format_count(round(corpus.seconds(key) / 60), "minute")
        counts = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
        yield f"{Setup.parse(key)}: {programs} in {minutes}: {counts}"
        covered = corpus.covered(key)
        for kind in ("pass", "decomposition", "lowering"):
            names = [row for row in covered if row["name"].startswith(kind)]
            proved = sum(row["proved"] > 0 for row in names)
            plural = f"{kind}es" if kind == "pass" else f"{kind}s"
            yield f"  {len(names)} {plural} seen, {proved} proved at least once"
        for cluster in sort_clusters(corpus.clusters(key)):
            yield f"  fault {cluster.id}, {describe_cluster(cluster)}"


def describe_cluster(cluster: Cluster) -> str:
    """Return one line: the fault, the number of its programs, its confirmation, and published faults of the pass."""
    plural = "s" * (cluster.programs != 1)
    told = f"{cluster.title} ({cluster.programs} program{plural}; {cluster.confirmed or 'not looked at yet'}"
    return told + (f"; published: {cluster.known}" if cluster.known else "") + ")"


def sort_clusters(clusters: list[Cluster]) -> list[Cluster]:
    """Sort clusters: those that no published fault explains first, then by stage."""
    return sorted(clusters, key=lambda one: (bool(one.known), ORDER.index(one.stage), -one.programs))


def write_page(corpus: Corpus) -> str:
    """Return the corpus as a page in Markdown: status, the smallest program of each cluster, and coverage."""
    lines = ["# Hunt", "", "```", *describe_status(corpus), "```", ""]
    for key in corpus.setups():
        setup = Setup.parse(key)
        for cluster in sort_clusters(corpus.clusters(key)):
            text = cluster.text.strip()
            lines += [f"## Fault {cluster.id}: {cluster.title}", "", f"{setup}, {describe_cluster(cluster)}.", ""]
            lines += [f"Smallest program, number {cluster.number}:", "", "```python", text, "```", ""]
        rows = corpus.covered(key)
        lines += [f"## Coverage of {setup}", "", "| name | programs | proved in |", "|---|---|---|"]
        lines += [f"| `{row['name']}` | {row['times']} | {row['proved']} |" for row in rows]
        lines.append("")
    return "\n".join(lines)
