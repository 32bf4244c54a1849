#!/usr/bin/env python3
"""A plant for `quorate backtest`: a tank that fills, and pumps that drain it.

It speaks the protocol of docs/backtest.md: one JSON object a line, an order in, an answer out. Water flows in at a
rate that rises and falls; each slot of the target `pumps` is one pump. Too much water in the tank is a violation. It
reads no clock: time is what the orders say.

    quorate backtest --policy examples/plants/drain.toml --plant 'python3 examples/plants/drain.py'
"""

import argparse
import json
import sys

INFLOW = [4, 4, 12, 30, 30, 30, 12, 4, 4, 4]  # litres a second, one number for each minute
PUMP = 5  # litres a second
HIGH_WATER = 1500  # litres


class Tank:
    def __init__(self):
        self.seconds = 0
        self.water = 0
        self.inflow = 0
        self.pump_ms = 0
        self.bad_minutes = set()

    def second(self, pumps):
        """One second passes with so many pumps."""
        rate = INFLOW[min(self.seconds // 60, len(INFLOW) - 1)]
        self.inflow += rate
        self.water = max(0, self.water + rate - PUMP * pumps)
        self.pump_ms += 1000 * pumps
        if self.water > HIGH_WATER:
            self.bad_minutes.add(self.seconds // 60)
        self.seconds += 1

    def answer(self, now_ms):
        def sample(name, kind, value):
            return {"source": "tank", "name": name, "kind": kind, "value": value, "attributes": {"tank": "north"}}

        return {
            "v": 1,
            "now_ms": now_ms,
            "samples": [
                sample("tank.level", "gauge", self.water),
                sample("tank.inflow", "counter", self.inflow),
            ],
            "done": self.seconds >= 60 * len(INFLOW) and self.water == 0,
            "account": {"violation_minutes": len(self.bad_minutes), "worker_ms": self.pump_ms},
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="pumps", help="the target whose slots are pumps")
    arguments = parser.parse_args()
    tank, pumps, before_ms = Tank(), None, None
    for line in sys.stdin:
        order = json.loads(line)
        if order["v"] != 1:
            sys.exit(f"this plant speaks version 1, not {order['v']}")
        desired = {entry["target"]: entry["state"] for entry in order["desired"]}
        # What happened before this order was under the order before; the first one says what there is at the beginning.
        slots = desired[arguments.target]["slots"]
        step_ms = 1000 if before_ms is None else order["now_ms"] - before_ms
        for _ in range(step_ms // 1000):
            tank.second(slots if pumps is None else pumps)
        pumps, before_ms = slots, order["now_ms"]
        print(json.dumps(tank.answer(order["now_ms"])), flush=True)


if __name__ == "__main__":
    main()
