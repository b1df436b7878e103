"""What would help MoDa-174T: an unpruned tree, messages that cost half, or an all-to-all in two levels?"""

import athanor

oceanlight = athanor.load_machine("sunway-oceanlight")
base = athanor.simulate(oceanlight, "moda-174t").summary()["step_seconds"]
print(f"as it is: {base:.2f} s a step")

half = oceanlight.calibration.message_overhead / 2
for what, machine, options in (
    ("unpruned tree", oceanlight.changed({"fabric.taper": "1/1"}), {}),
    ("half the message overhead", oceanlight.changed({"calibration.message_overhead": half}), {}),
    ("two-level all-to-all", oceanlight, {"all_to_all": "two-level"}),
):
    seconds = athanor.simulate(machine, "moda-174t", **options).summary()["step_seconds"]
    print(f"{what}: {base / seconds:.2f}x")

# > as it is: 8.79 s a step
# > unpruned tree: 1.00x
# > half the message overhead: 1.50x
# > two-level all-to-all: 1.60x
