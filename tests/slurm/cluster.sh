#!/usr/bin/env bash
# A real Slurm of one node on this machine, for tests: `cluster.sh up FOLDER`, `cluster.sh down FOLDER`.
# Needs root, and Slurm or apt to install it; no systemd, nothing under /etc: all is in FOLDER.
# Jobs need SLURM_CONF=FOLDER/slurm.conf. Two partitions: jobs in `urgent` preempt those in `work`.
set -euo pipefail

folder=$(realpath -m "${2:?usage: cluster.sh up|down FOLDER}")
export SLURM_CONF=$folder/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin

cannot() {
    echo "no tests on a real Slurm here: $1" >&2
    exit 77
}

install() {
    [ "$(id -u)" = 0 ] || cannot "its daemons need root"
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null &&
        return
    command -v apt-get >/dev/null || cannot "it is not installed, and there is no apt to install it"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } \
        >/dev/null 2>&1 || cannot "apt could not install slurm-wlm and munge"
}

configure() {
    mkdir -p "$folder"/{state,spool}
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
    chmod 400 "$folder/munge.key"
    local host cores memory_mb
    host=$(hostname -s) cores=$(getconf _NPROCESSORS_ONLN)
    memory_mb=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    # cred_expire is also how long a requeued job waits; KillWait how long a job has after SIGTERM.
    # The cores are counted double, so that more jobs run at once than this machine may have cores.
    cat >"$SLURM_CONF" <<CONF
ClusterName=mixlaw-tests
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
GresTypes=gpu
JobRequeue=1
KillWait=2
MinJobAge=300
InactiveLimit=0
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=$host NodeAddr=127.0.0.1 CPUs=$((2 * cores)) RealMemory=$memory_mb Gres=gpu:2 State=UNKNOWN
PartitionName=work Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
    # GPUs to count and to hand out, not to use.
    printf 'Name=gpu File=%s\n' /dev/null /dev/zero >"$folder/gres.conf"
}

start() {
    munged --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" \
        --pid-file "$folder/munged.pid" --log-file "$folder/munged.log" --seed-file "$folder/munge.seed"
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --format=%T --partition=work 2>/dev/null)" = idle ] && return
        sleep 1
    done
    tail -n 5 "$folder"/slurmctld.log "$folder"/slurmd.log >&2
    stop
    echo "Slurm did not become idle within 60 s" >&2
    exit 1
}

stop() {
    [ -e "$SLURM_CONF" ] || return 0
    scancel --quiet --me 2>/dev/null || true
    # A step that outlives its controller would speak to the next one.
    for _ in $(seq 100); do [ -n "$(squeue --noheader 2>/dev/null)" ] || break; sleep 0.2; done
    for daemon in slurmd slurmctld munged; do
        [ -e "$folder/$daemon.pid" ] || continue
        kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
        for _ in $(seq 50); do [ -e "$folder/$daemon.pid" ] || break; sleep 0.2; done
    done
}

case $1 in
up) install && configure && start ;;
down) stop ;;
esac
