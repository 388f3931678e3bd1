# What the sbatch scripts share: training on every node of a job, which saves and comes back when it is told to stop.

source slurm/site.sh # before -u: what modules and environments run may look at variables that are not set
set -uo pipefail
PROCESSES_PER_NODE=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun no longer takes it over from sbatch
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID} # the number of an array's last task alone would mean all of them

say() { printf '%s job %s: %s\n' "$(date +%H:%M:%S)" "$job" "$*"; }

step= told=
trap 'told=yes; say "told to stop"; [[ -n $step ]] && pass_on' USR1 USR2 TERM

# train FLAGS…: train.py with these flags, until it is finished, has failed, or is told to stop.
train() {
    run_folder=$($CONTAINER gan where "$@") || {
        (($? == 127)) && say "activate the environment that has gan in it, before sbatch or in slurm/site.sh"
        exit 2
    }
    [[ $run_folder != *$'\n'* ]] || { echo "$run_folder"; exit 0; } # --help
    [[ " $* " == *" --dry-run "* ]] && { $CONTAINER python train.py "$@"; exit; }
    mkdir -p "$run_folder" && touch "$run_folder/.attempt" || exit 1
    say "restart ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST, run folder $run_folder"
    ((${SLURM_RESTART_COUNT:-0})) || touch "$run_folder/.begun"
    [[ $(newest) -nt $run_folder/.begun ]] && set -- "$@" --resume auto # whatever it began with, it goes on with itself
    [[ -z $told ]] && run_on_nodes "$@"
    case $(state) in
        finished) exit 0 ;;
        failed) exit 1 ;;
        preempted) come_back ;;
    esac
    # told, or preempted (which the nodes alone are told), so early that nothing had been written
    [[ -n $told || $(facts) == *" PreemptTime=2"* ]] && come_back
    say "ended before it trained, or killed; see above"
    exit 1
}

# One task per node, with accelerate launch inside. A signal to this shell goes on to all of them.
run_on_nodes() {
    export MAIN_ADDRESS MAIN_PORT PROCESSES
    MAIN_ADDRESS=$(ask show node --oneliner "$SLURMD_NODENAME" | sed 's/.* NodeAddr=\([^ ]*\).*/\1/')
    MAIN_PORT=$(free_port)
    PROCESSES=$((SLURM_NNODES * PROCESSES_PER_NODE))
    export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2 # SIGUSR1 would end the launcher alone
    export PET_SHUTDOWN_TIMEOUT=$SAVE_SECONDS
    export STARTED=$run_folder/.started
    rm -f "$STARTED"
    srun --export=ALL --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 bash slurm/node.sh "$@" &
    step=$!
    [[ -n $told ]] && pass_on
    while kill -0 "$step" 2> /dev/null; do wait "$step"; done # a signal ends a wait early
    step=
}

# The signal to srun, which loses it while its tasks are not yet running.
pass_on() {
    if ! [[ -e $STARTED ]]; then
        until [[ -e $STARTED ]] || ! kill -0 "$step" 2> /dev/null; do sleep 0.2; done
        sleep 1
    fi
    kill -"$STOP_SIGNAL" "$step" 2> /dev/null
}

# A port below those that Linux gives out by itself; jobs may share a node.
free_port() {
    local port=$((SLURM_JOB_ID % 20000))
    while (exec 3<> "/dev/tcp/${MAIN_ADDRESS:-localhost}/$((10000 + port))") 2> /dev/null; do
        port=$(((port + 7919) % 20000)) # not the next one, which the next job takes
    done
    echo $((10000 + port))
}

# The newest checkpoint; what status.json says, if it was written since this job started; what Slurm says.
newest() { (shopt -s nullglob; printf '%s\n' "$run_folder"/checkpoints/iteration-* | tail -n 1); }
state() {
    local file=$run_folder/status.json
    [[ $file -nt $run_folder/.attempt ]] && sed 's/.*"state": "\([a-z]*\)".*/\1/' "$file"
}
facts() { ask show job --oneliner "$job"; }

# scontrol, which a busy controller does not answer now and then.
ask() {
    local try
    for try in 3 2 1 0; do
        scontrol "$@" && return
        ((try)) && sleep 3
    done
    return 1
}

# Back into the queue; not when somebody has cancelled the job, nor when it gets nowhere.
come_back() {
    trap '' USR1 USR2 TERM
    local place state progress
    place=$(newest)
    place=${place:+at ${place##*/}}
    place=${place:-before its first checkpoint}
    state=$(facts | sed 's/.* JobState=\([A-Z]*\).*/\1/')
    if [[ -n $state && $state != RUNNING && $state != PREEMPTED ]]; then
        say "stopped $place ($state); unless Slurm brings it back, submit the same command to go on from there"
        exit 75
    fi
    progress="job $job $place"
    echo "$progress" >> "$run_folder/.requeues"
    if (($(grep -cxF "$progress" "$run_folder/.requeues") > MAX_REQUEUES_WITHOUT_PROGRESS)); then
        say "given up: stopped $place, as after $MAX_REQUEUES_WITHOUT_PROGRESS requeues before"
        exit 1
    fi
    if ask requeue "$job"; then
        say "stopped $place; back into the queue"
    else
        say "stopped $place, and Slurm does not take it back; submit the same command to go on from there"
    fi
    exit 75
}
