"""What is claimed about speed and cost, as programs: `make bench` runs them all."""
