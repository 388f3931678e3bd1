# What the sbatch scripts share: training on every node of a job, which saves and comes back when it is told to stop.

set -uo pipefail
source slurm/site.sh
PROCESSES_PER_NODE=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun no longer takes it over from sbatch

say() { printf '%s job %s: %s\n' "$(date +%H:%M:%S)" "$SLURM_JOB_ID" "$*"; }

# train FLAGS…: train.py with these flags, until it is finished, has failed, or is told to stop.
train() {
    run_folder=$($CONTAINER gan where "$@") || {
        (($? == 127)) && say "activate the environment that has gan in it, before sbatch or in slurm/site.sh"
        exit 2
    }
    mkdir -p "$run_folder" && touch "$run_folder/.attempt" || exit 1
    say "restart ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST, run folder $run_folder"
    ((${SLURM_RESTART_COUNT:-0})) && set -- "$@" --resume auto # whatever it began with, it goes on with itself
    run_on_nodes "$@"
    case $(state) in
        finished) exit 0 ;;
        failed) exit 1 ;;
        preempted) come_back ;;
    esac
    [[ -n $told ]] && come_back # told so early that nothing had been written
    say "ended before it trained, or killed; see above. The same command goes on from the newest checkpoint"
    exit 1
}

# One task per node, with accelerate launch inside. A signal to this shell goes on to all of them.
run_on_nodes() {
    export MAIN_ADDRESS MAIN_PORT PROCESSES
    MAIN_ADDRESS=$(scontrol show node --oneliner "$SLURMD_NODENAME" | sed 's/.* NodeAddr=\([^ ]*\).*/\1/')
    MAIN_PORT=$(free_port)
    PROCESSES=$((SLURM_NNODES * PROCESSES_PER_NODE))
    export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 # SIGUSR1 would end the launcher alone
    export PET_SHUTDOWN_TIMEOUT=$SAVE_SECONDS
    told=
    srun --ntasks-per-node=1 bash slurm/node.sh "$@" &
    local step=$!
    trap 'told=yes; say "told to stop"; kill -"$STOP_SIGNAL" "$step"' USR1 USR2 TERM
    while kill -0 "$step" 2> /dev/null; do wait "$step"; done # a signal ends a wait early
    trap - USR1 USR2 TERM
}

# A port below those that Linux gives out by itself; jobs may share a node.
free_port() {
    local port=$((10000 + SLURM_JOB_ID % 20000))
    while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done
    echo "$port"
}

# What status.json says, if it was written since this job started.
state() { [[ $run_folder/status.json -nt $run_folder/.attempt ]] && field state; }
field() { sed -n "s/.*\"$1\": \"\{0,1\}\([a-z0-9]*\).*/\1/p" "$run_folder/status.json" 2> /dev/null; }

# Back into the queue; not when somebody has cancelled the job, nor when it gets nowhere.
come_back() {
    local progress="job $SLURM_JOB_ID at iteration $(field iteration)"
    if [[ $(scontrol show job --oneliner "$SLURM_JOB_ID") != *" JobState=RUNNING "* ]]; then
        say "stopped at iteration $(field iteration); submitted again, the same command goes on from there"
        exit 75
    fi
    echo "$progress" >> "$run_folder/.requeues"
    if (($(grep -cxF "$progress" "$run_folder/.requeues") > MAX_REQUEUES_WITHOUT_PROGRESS)); then
        say "given up: still at iteration $(field iteration) after $MAX_REQUEUES_WITHOUT_PROGRESS requeues"
        exit 1
    fi
    say "stopped at iteration $(field iteration); back into the queue"
    scontrol requeue "$SLURM_JOB_ID" || exit 75
    sleep 60 # Slurm ends this shell
}
