"""One training step of MoDa-1.93T on 96,000 nodes: how long, how fast, and where the time goes."""

import athanor

run = athanor.simulate(machine="sunway-oceanlight", model="moda-1.93t")
totals = run.summary()

print(f"step {totals['step_seconds']:.3f} s, {totals['flops_per_second'] / 1e18:.2f} EFLOP/s")
for category, seconds in totals["breakdown"].items():
    if seconds > 0.001:
        print(f"{category:14s} {seconds:.3f} s")

slowest = run.to_frame().assign(seconds=lambda rows: rows["end"] - rows["start"]).nlargest(3, "seconds")
for row in slowest.itertuples():
    print(f"{row.operation}: {row.seconds:.3f} s, limited by {row.limit}")

# > step 2.981 s, 1.18 EFLOP/s
# > compute        2.087 s
# > all_to_all     0.069 s
# > gradient_sync  0.579 s
# > optimizer      0.002 s
# > balancing      0.098 s
# > other          0.145 s
# > gradients.experts.fp16.reduce-scatter: 0.224 s, limited by nic.out
# > update.experts.fp16.all-gather: 0.224 s, limited by nic.out
# > update.bookkeeping: 0.145 s, limited by framework
