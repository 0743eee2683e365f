#!/bin/sh
# Installs leadone as a systemd service; run again, upgrades it.
set -eu
umask 022 # the service's user reads what is installed, whatever root's own habit

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-python3}
prefix=/opt/leadone
config=/etc/leadone/leadone.yaml
unit=/etc/systemd/system/leadone.service
locked=$here/../../requirements
state=/var/lib/leadone
runtime=/run/leadone
link=/usr/local/bin/leadone

usage() {
    cat <<EOF
Usage: install.sh [--start] [PACKAGE]
       install.sh --uninstall

Installs leadone as a systemd service, or upgrades it. PACKAGE is whatever pip
takes: a wheel, a source folder, a requirement such as "leadone==0.1.0"; with
"[postgres]" after its name, what a PostgreSQL database needs comes along.
Without it, the source folder this script lies in is installed.

Everything that leadone needs is installed in the versions, and by the hashes,
of the folder requirements/ of the sources that this script lies in. They must
be of the same release as PACKAGE.

  --start      start the service if it is not running (otherwise it is only
               enabled, to be started once the configuration has been edited);
               a running one is restarted in any case
  --uninstall  stop and remove the service and the program; the configuration
               and the recordings stay
  --help       this text

What goes where:
  $prefix                     the program, in a virtual environment
  $config    written once, from "leadone config example"
  $state                 recordings and database
  $unit
  $link       a link to the command

Environment:
  PYTHON   the interpreter to build with, 3.11 or newer (default: python3)
  DESTDIR  stage the files under this folder and touch nothing else: no user, no
           service. The virtual environment in it keeps the staging path.
  PIP_*    pip's own options, e.g. PIP_FIND_LINKS=./wheels PIP_NO_INDEX=1
EOF
}

say() { printf '%s\n' "$*"; }
die() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
misused() { printf 'install.sh: %s (see --help)\n' "$*" >&2; exit 2; }
staged() { [ -n "$DESTDIR" ]; }

check_machine() {
    staged && return
    [ "$(id -u)" -eq 0 ] || die "must run as root: sudo $0"
    command -v systemctl >/dev/null || die "no systemctl here; this installs a systemd service"
}

check_python() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "$PYTHON is not Python 3.11 or newer; set PYTHON to one that is"
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$PYTHON cannot make virtual environments; on Debian: apt install python3-venv"
    staged && return
    case $("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /home/* | /root/* | /run/user/*)
            die "$PYTHON lies in a home folder, which the service cannot see; set PYTHON to another"
            ;;
    esac
}

create_user() {
    staged && return
    if ! getent passwd leadone >/dev/null; then
        shell=$(command -v nologin || echo /bin/false)
        useradd --system --user-group --home-dir "$state" --no-create-home --shell "$shell" leadone
        say "created the user leadone"
    fi
    # BlueZ may admit only members of this group; machines without Bluetooth lack it.
    if getent group bluetooth >/dev/null; then
        usermod --append --groups bluetooth leadone
    fi
}

install_program() {
    venv=$DESTDIR$prefix
    # A distribution upgrade may have taken away the interpreter this one was built with.
    if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        mkdir -p "$venv"
        "$PYTHON" -m venv --clear "$venv"
    fi
    say "installing $package into $venv"
    set -- -r "$locked/base.txt"
    case $package in *'[postgres]'*) set -- -r "$locked/postgres.txt" ;; esac
    # A wheel has been built already.
    case ${package%%\[*} in *.whl) ;; *) set -- "$@" -r "$locked/build.txt" ;; esac
    "$venv/bin/python" -m pip install --quiet --require-hashes --only-binary :all: "$@"
    # Forced, for pip takes a wheel of the version that is already there for the same wheel. It need not be.
    "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --force-reinstall "$package"
    if missing=$("$venv/bin/python" -m pip check | grep '^leadone '); then
        die "$package does not go with $locked: $missing"
    fi
    [ -x "$venv/bin/leadone" ] || die "$package has brought no leadone command"
}

install_command() {
    if [ -e "$DESTDIR$link" ] && [ ! -L "$DESTDIR$link" ]; then
        say "left $link alone: it is not a link of ours"
        return
    fi
    mkdir -p "$DESTDIR${link%/*}"
    ln -sfn "$prefix/bin/leadone" "$DESTDIR$link"
}

install_config() {
    if [ -e "$DESTDIR$config" ] || [ -L "$DESTDIR$config" ]; then
        say "kept $config as it is"
        return
    fi
    # The file will hold passwords: root writes it, the daemon reads it, nobody else.
    (umask 027 && mkdir -p "$DESTDIR${config%/*}")
    # Whole or not at all: an empty file left by a failure would never be replaced.
    if ! (umask 027 && "$DESTDIR$prefix/bin/leadone" config example >"$DESTDIR$config.new"); then
        rm -f "$DESTDIR$config.new"
        die "leadone could not write an example configuration"
    fi
    staged || chown root:leadone "${config%/*}" "$config.new"
    mv "$DESTDIR$config.new" "$DESTDIR$config"
    say "wrote $config"
}

install_unit() {
    mkdir -p "$DESTDIR${unit%/*}"
    cp "$here/leadone.service" "$DESTDIR$unit"
    chmod 0644 "$DESTDIR$unit"
}

start_service() {
    staged && return
    systemctl daemon-reload
    systemctl --quiet enable leadone.service
    case $start,$(systemctl show --property=ActiveState --value leadone.service) in
        no,inactive | no,failed)
            say "enabled, not started. Edit $config, then: systemctl start leadone"
            return
            ;;
    esac
    # What runs now keeps running if the new version cannot read the configuration.
    runuser -u leadone -- "$prefix/bin/leadone" config check -c "$config" ||
        die "$config does not pass the check above; the service was not restarted"
    systemctl restart leadone.service
    say "running. Watch it with: journalctl -u leadone -f"
}

uninstall() {
    staged || systemctl --quiet disable --now leadone.service 2>/dev/null || true
    rm -f "$DESTDIR$unit"
    if [ "$(readlink "$DESTDIR$link" || true)" = "$prefix/bin/leadone" ]; then
        rm -f "$DESTDIR$link"
    fi
    # What the service keeps in memory between its starts, a copy of the configuration among it.
    rm -rf "$DESTDIR${prefix:?}" "$DESTDIR${runtime:?}"
    staged || systemctl daemon-reload
    say "removed. ${config%/*}, $state and the user leadone were left in place"
}

action=install start=no package=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --start) start=yes ;;
        --uninstall) action=uninstall ;;
        -*) misused "unknown option $1" ;;
        *) [ -z "$package" ] || misused "more than one package"; package=$1 ;;
    esac
    shift
done

case $package in
    *'[postgres]'*) ;;
    *'['*) misused "no other extra than [postgres] is for a service" ;;
esac
check_machine
if [ "$action" = uninstall ]; then
    [ -z "$package" ] || misused "--uninstall takes no package"
    uninstall
    exit 0
fi
if [ -z "$package" ]; then
    package=$(CDPATH='' cd -- "$here/../.." && pwd)
    [ -f "$package/pyproject.toml" ] || misused "no source folder around this script: name a package"
fi
[ -f "$locked/base.txt" ] || die "no folder $locked: run this script where it lies in the sources"
check_python
create_user
install_program
install_command
install_config
install_unit
start_service
