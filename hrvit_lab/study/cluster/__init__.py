"""Studies on a Slurm cluster: options, the ledger of submissions, Slurm's commands, and what runs in a job."""
