# What every node of a job runs: accelerate launch, with the node's own place in the job.
((SLURM_NODEID)) || touch "$STARTED"
precision=()
[[ $MIXED_PRECISION == no ]] || precision=(--mixed_precision "$MIXED_PRECISION") # the launcher tries it out on a GPU
exec $CONTAINER accelerate launch --config_file accelerate_configs/multi_node.yaml "${precision[@]}" \
    --num_machines "$SLURM_NNODES" --num_processes "$PROCESSES" --machine_rank "$SLURM_NODEID" \
    --main_process_ip "$MAIN_ADDRESS" --main_process_port "$MAIN_PORT" train.py "$@"
