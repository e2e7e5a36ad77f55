"""The picture of bench root: how many times as fast as sshfs, as bars on a logarithmic scale."""

from html import escape
from math import log10

from sheet import figure

WIDTH, LEFT, GAP, TOP, ROW, BOTTOM = 900, 178, 26, 84, 34, 58
STYLE = """
text { font: 13px -apple-system, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 }
.head { font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.bold { font-weight: 600 }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.one { stroke: #59636e; stroke-width: 1.5 }
.mine { fill: #1a7f64 }
.slow { fill: #b35900 }
.other { fill: #9aa4ae }
.ground { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #9198a1 }
.mine { fill: #3fb58f } .slow { fill: #d98a3d } .other { fill: #6a737d } .ground { fill: #0d1117 }
}
"""
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Panel:
    """One round trip: a scale and its bars."""

    def __init__(self, sheet, workloads, rtt, x, width):
        self.sheet, self.workloads, self.rtt, self.x, self.width = sheet, workloads, rtt, x, width
        ratios = [r for w in workloads for s in ("sbxfs", "rclone")
                  if (r := sheet.ratio(w.name, rtt, of=s))]
        low, high = min([0.5, *ratios]), max([2, *ratios])
        self.low = max(t for t in TICKS if t <= max(low, TICKS[0]))
        self.high = min([t for t in TICKS if t >= high] or [TICKS[-1]])

    def at(self, ratio):
        """The room at the right is for the longest bar's label."""
        ratio = min(max(ratio, self.low), self.high)
        share = (log10(ratio) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.x + share * (self.width - 44)

    def bar(self, y, height, ratio, kind):
        start, end = sorted((self.at(1), self.at(ratio)))
        return (f'<rect class="{kind}" x="{start:.1f}" y="{y}" width="{max(end - start, 1.5):.1f}" '
                f'height="{height}" rx="2"/>')

    def row(self, workload, y):
        out = []
        mine = self.sheet.ratio(workload.name, self.rtt)
        rclone = self.sheet.ratio(workload.name, self.rtt, of="rclone")
        if mine:
            out.append(self.bar(y + 4, 13, mine, "mine" if mine >= 0.95 else "slow"))
            text = f"{mine:.1f}×" if mine < 10 else f"{mine:.0f}×"
            x = max(self.at(mine), self.at(1)) + 5
            seconds = self.sheet.median(workload.name, self.rtt, "sbxfs")
            out.append(f'<text class="bold" x="{x:.1f}" y="{y + 15}">{text}</text>')
            out.append(f'<title>{escape(workload.title)}: {figure(workload, seconds)}</title>')
        if rclone:
            out.append(self.bar(y + 19, 5, rclone, "other"))
        return "<g>" + "".join(out) + "</g>"

    def draw(self, bottom):
        name = f"round trip {self.rtt} ms"
        yield f'<text class="head" x="{self.x}" y="{TOP - 24}">{name}</text>'
        for tick in TICKS:
            if self.low <= tick <= self.high:
                x = self.at(tick)
                kind = "one" if tick == 1 else "grid"
                yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 12}" y2="{bottom}"/>'
                label = "sshfs" if tick == 1 else f"{tick:g}×"
                yield (f'<text class="small" text-anchor="middle" x="{x:.1f}" '
                       f'y="{bottom + 15}">{label}</text>')
        for n, workload in enumerate(self.workloads):
            yield self.row(workload, TOP + n * ROW)


def draw(sheet, workloads, rtts):
    """The SVG's text. Workloads without a ratio to sshfs are left out."""
    shown = [w for w in workloads if any(sheet.ratio(w.name, rtt) for rtt in rtts)]
    bottom = TOP + len(shown) * ROW
    height = bottom + BOTTOM
    width = (WIDTH - LEFT - GAP * len(rtts)) / len(rtts)
    panels = [Panel(sheet, shown, rtt, LEFT + n * (width + GAP), width)
              for n, rtt in enumerate(rtts)]
    versions = sheet.versions
    foot = (f"medians on one sshd (OpenSSH {versions.get('sshd')}), {versions.get('cpus')} processors; "
            f"sshfs {versions.get('sshfs')} as it comes; logarithmic scale")
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
           f'width="{WIDTH}" height="{height}" role="img">',
           f"<style>{STYLE}</style>",
           f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
           '<text class="title" x="20" y="32">root/ of sbxfs: how many times as fast as sshfs</text>']
    x = WIDTH - 208
    measured = any(sheet.ratio(w.name, rtt, of="rclone") for w in shown for rtt in rtts)
    for kind, name, wide in (("mine", "sbxfs", 74), *[("other", "rclone mount", 0)] * measured):
        out.append(f'<rect class="{kind}" x="{x}" y="22" width="12" height="12" rx="2"/>'
                   f'<text class="small" x="{x + 17}" y="32">{name}</text>')
        x += wide
    for n, workload in enumerate(shown):
        out.append(f'<text text-anchor="end" x="{LEFT - 12}" y="{TOP + n * ROW + 15}">'
                   f'{escape(workload.label)}</text>')
    for panel in panels:
        out += panel.draw(bottom)
    out.append(f'<text class="small" x="20" y="{height - 14}">{escape(foot)}</text></svg>')
    return "\n".join(out) + "\n"
