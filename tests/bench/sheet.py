"""Results of measurements: kept as JSON, shown as tables or lines with ratios and targets."""

import fcntl
import json
import statistics
from pathlib import Path


class Lines:
    """Single figures, a line each with what is wanted of it; kept in bench/NAME.json at the end."""

    def __init__(self, name, width=66):
        self.name, self.width, self.rows, self.missed = name, width, [], []

    def show(self, what, value, unit, target=None, least=False, **more):
        """target is the most, or the least, that it may be; more goes into the file only."""
        verdict = ""
        if target is not None:
            met = value >= target if least else value <= target
            verdict = f"  ({'>=' if least else '<='} {target:g}: {'met' if met else 'MISSED'})"
            if not met:
                self.missed.append(what.strip())
        self.rows.append({"what": what.strip(), "value": value, "unit": unit, "target": target, **more})
        print(f"{what:<{self.width}} {value:10.3f} {unit}{verdict}", flush=True)

    def end(self, folder, judge=True):
        """Write them down; the exit status of the program."""
        path = Path(folder) / "bench" / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.rows, indent=1) + "\n")
        if self.missed:
            print("Missed: " + "; ".join(self.missed))
        return 1 if self.missed and judge else 0


class Sheet:
    """Runs by (workload, round trip, system); the file keeps those of other calls, too."""

    def __init__(self, path):
        self.path = Path(path)
        self.versions, self.notes, self.mine = {}, {}, {}
        self.load()

    def load(self):
        """What the file holds, with what this call has measured over it."""
        self.cells = {}
        if self.path.exists():
            kept = json.loads(self.path.read_text())
            self.versions = {**kept["versions"], **self.versions}
            self.notes = {**kept["notes"], **self.notes}
            for cell in kept["cells"]:
                self.cells[cell["workload"], cell["rtt"], cell["system"]] = cell
        self.cells.update(self.mine)

    def begin(self, workload, rtt, system):
        """Forget what an earlier call measured there, with the first run of this one."""
        self.mine.pop((workload, rtt, system), None)

    def add(self, workload, rtt, system, seconds, **extra):
        """seconds None: it was given up after extra["limit"] seconds."""
        cell = self.mine.setdefault((workload, rtt, system), {
            "workload": workload, "rtt": rtt, "system": system, "seconds": []})
        cell["seconds"].append(seconds)
        for key, value in extra.items():
            cell.setdefault(key, []).append(value)
        self.save()

    def save(self):
        """Into the file; another call may be doing the same for other cells."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.load()
            beside = self.path.with_suffix(".new")
            beside.write_text(json.dumps({"versions": self.versions, "notes": self.notes,
                                          "cells": list(self.cells.values())}, indent=1))
            beside.rename(self.path)

    def runs(self, workload, rtt, system):
        return self.cells.get((workload, rtt, system), {}).get("seconds", [])

    def median(self, workload, rtt, system):
        """Seconds, or None when there is none or it was given up."""
        runs = self.runs(workload, rtt, system)
        return statistics.median(runs) if runs and None not in runs else None

    def at_least(self, workload, rtt, system):
        """The median, or how long it took until it was given up."""
        cell = self.cells.get((workload, rtt, system))
        if not cell:
            return None
        if None in cell["seconds"]:
            return max(cell["limit"])
        return self.median(workload, rtt, system)

    def ratio(self, workload, rtt, over="sshfs", of="sbxfs"):
        """How many times faster; None when either is missing."""
        mine, others = self.median(workload, rtt, of), self.at_least(workload, rtt, over)
        return others / mine if mine and others else None


def figure(workload, seconds):
    if seconds is None:
        return ""
    if workload.bytes:
        return f"{workload.bytes / seconds / 1e6:.0f} MB/s"
    if workload.count:
        return f"{seconds / workload.count * 1e3:.2f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def cell_text(sheet, workload, rtt, system):
    runs = sheet.runs(workload.name, rtt, system)
    if not runs:
        return "-"
    if None in runs:
        return f"> {max(sheet.cells[workload.name, rtt, system]['limit']):.0f} s"
    text = figure(workload, sheet.median(workload.name, rtt, system))
    return text + (f" ({len(runs)})" if len(runs) < 5 else "")


def verdict(ratio, target, at_least=False):
    if ratio is None:
        return "-"
    text = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
    if at_least:
        text = "> " + text
    return text if target is None else f"{text} (>= {target:g}: {'met' if ratio >= target else 'MISSED'})"


def show(sheet, workloads, rtts, systems):
    """The table; returns the names of targets that were missed."""
    missed = []
    print()
    print("; ".join(f"{name} {version}" for name, version in sheet.versions.items()))
    print("Medians; the number of runs in brackets where it is less than 5.")
    for rtt in rtts:
        heads = [f"round trip {rtt} ms", *systems, "times sshfs", "of plain sftp"]
        rows = [heads]
        for w in workloads:
            if not any(sheet.runs(w.name, rtt, s) for s in systems):
                continue
            over, plain = sheet.ratio(w.name, rtt), sheet.ratio(w.name, rtt, "sftp")
            target, plain_target = w.targets.get(rtt), w.sftp_target
            if over is not None and target is not None and over < target:
                missed.append(f"{w.title} at {rtt} ms: {over:.2f} of {target:g}")
            if plain is not None and plain_target and plain < plain_target:
                missed.append(f"{w.title} at {rtt} ms: {plain:.2f} of sftp, {plain_target:g} wanted")
            rows.append([w.title, *(cell_text(sheet, w, rtt, s) for s in systems),
                         verdict(over, target, None in sheet.runs(w.name, rtt, "sshfs")),
                         verdict(plain, plain_target)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        print()
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for what, note in sheet.notes.items():
        print(f"\n{what}: {note}")
    return missed


def markdown(sheet, workloads, rtts, systems=("sbxfs", "sshfs")):
    """The same for a README: a row a workload, the round trips beside each other."""
    heads = [f"{s}, {rtt} ms" if s != "times" else "times sshfs"
             for rtt in rtts for s in (*systems, "times")]
    yield "| " + " | ".join(["workload", *heads]) + " |"
    yield "| --- |" + " ---: |" * len(heads)
    for w in workloads:
        row = [w.title]
        for rtt in rtts:
            ratio = sheet.ratio(w.name, rtt)
            given_up = None in sheet.runs(w.name, rtt, "sshfs")
            row += [cell_text(sheet, w, rtt, s) for s in systems]
            row.append(f"**{verdict(ratio, None, given_up)}**" if ratio else "-")
        if any(cell != "-" for cell in row[1:]):
            yield "| " + " | ".join(row) + " |"


def put_into(path, lines):
    """Replace what stands between the two marks of the file."""
    begin, end = "<!-- bench root: begin -->\n", "<!-- bench root: end -->\n"
    text = path.read_text()
    before, rest = text.split(begin)
    path.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])
