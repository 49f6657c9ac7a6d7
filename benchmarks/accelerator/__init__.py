"""A borrowed accelerator machine: `bash benchmarks/accelerator.sh`."""
