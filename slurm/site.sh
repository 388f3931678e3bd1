# What your site needs. This runs on the first node of each job; what is exported here reaches all of its nodes. Each
# value may also come from the environment of sbatch: MIXED_PRECISION=bf16 sbatch slurm/train_single_node.sbatch …
# Partition and account: sbatch --partition … --account …, or SBATCH_PARTITION and SBATCH_ACCOUNT in your ~/.bashrc.

# module load cuda
# source ~/gan/bin/activate
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0  # the network between the nodes
# export XDG_CACHE_HOME=/scratch/$USER                  # where the packed images are kept: a fast disk
# export WANDB_MODE=offline                             # where the nodes have no internet

export MIXED_PRECISION=${MIXED_PRECISION:-no}     # no, bf16 or fp16
export CONTAINER=${CONTAINER:-}                   # words before every command, such as apptainer exec --nv gan.sif
STOP_SIGNAL=${STOP_SIGNAL:-USR1}                  # tells the processes to save: USR1 or USR2, for which torchrun must
                                                  # know --signals-to-handle; with an older torch, TERM
SAVE_SECONDS=${SAVE_SECONDS:-150}                 # what a launcher leaves its processes to save, once told to stop
MAX_REQUEUES_WITHOUT_PROGRESS=${MAX_REQUEUES_WITHOUT_PROGRESS:-3}
# PROCESSES_PER_NODE=2                            # instead of one per GPU of the node (one, where it has none)
