# shellcheck shell=bash disable=SC2034
#
# What contrib/setup, contrib/quickstart and contrib/check share: how they
# speak, which packages they need, and how those are installed. Sourced, never
# run. A function that can fail either ends the script with one sentence (die)
# or says so in its first comment.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
deps=$top/.deps			# what we build ourselves; ignored by git
logs=$deps/log			# a log for each long step, kept for when one fails

# --- packages -----------------------------------------------------------------

# To compile.
build_packages=(gcc libc6-dev meson ninja-build pkg-config libfuse3-dev libssl-dev
	zlib1g-dev libcurl4-openssl-dev libcjson-dev libinih-dev uthash-dev libslirp-dev)
# To run: FUSE, QEMU, and what makes the image. gpg is how mmdebstrap finds out
# which key signed an archive.
run_packages=(xz-utils zstd lz4 fuse3 openssh-client qemu-system-x86 qemu-utils mmdebstrap gpg
	e2fsprogs uidmap kmod cpio)
# To build libssh2 where the system's is too old, or slow.
libssh2_packages=(cmake make patch dpkg-dev)
libssh2_version=1.11		# the first with rsa-sha2 and strict key exchange
# To make the Debian package.
deb_packages=(debhelper dpkg-dev libsystemd-dev systemd libcurl4-openssl-dev git)
# To run the tests.
test_packages=(libcmocka-dev python3 python3-pytest python3-prometheus-client openssl openssh-server
	openssh-sftp-server sshfs vim nano emacs-nox mandoc git sqlite3 rsync tmux psmisc procps
	less busybox iproute2 util-linux rust-coreutils nodejs make python3-venv grub-pc-bin grub-common fdisk)
# (npm comes with some distributions of Node.)
command -v npm >/dev/null || test_packages+=(npm)
# To measure: the rivals.
bench_packages=(sshfs rclone git make)

# --- speaking -----------------------------------------------------------------

say() { printf '%s\n' "$*"; }

die() {
	printf '%s: %s\n' "contrib/$(basename "$0")" "$*" >&2
	exit 1
}

if ! mkdir -p "$logs" 2>/dev/null || [[ ! -w $logs ]]; then
	die "$(id -un) may not write to $logs: run this as its owner, or remove $deps"
fi

# progress NAME SENTENCE COMMAND...: run a long step with its output in a log.
# A terminal shows the seconds and the log's last line; elsewhere a line comes
# every 30 seconds. Returns the command's status. A shell function that is run
# so must check each of its steps: bash ignores `set -e` here.
progress() {
	local log=$logs/$1.log what=$2 began=$SECONDS status=0
	shift 2
	: >"$log"
	say "$what"
	ticker "$log" &
	ticker_pid=$!
	"$@" >"$log" 2>&1 </dev/null || status=$?
	ticker_stop
	((status)) || say "  done in $((SECONDS - began)) s"
	return "$status"
}

ticker_pid=
ticker_stop() {
	[[ $ticker_pid ]] || return 0
	kill "$ticker_pid" 2>/dev/null || true
	wait "$ticker_pid" 2>/dev/null || true
	ticker_pid=
	if [[ -t 1 ]]; then printf '\r\033[K'; fi
}
trap ticker_stop EXIT

ticker() {
	local step=30 never line
	trap - EXIT
	if [[ -t 1 ]]; then step=1; fi
	# Waiting on a pipe that stays silent leaves no `sleep` behind when killed.
	exec {never}<> <(:)
	local began=$SECONDS
	while ! read -rt "$step" -u "$never" && kill -0 $$ 2>/dev/null; do
		line=$(tail -c 400 "$1" | tr '\r' '\n' | tr -cd '[:print:]\n' | grep . | tail -n 1) || line=
		if [[ -t 1 ]]; then
			printf '\r\033[K  %3d s  %.*s' $((SECONDS - began)) \
				$((${COLUMNS:-80} - 12)) "$line"
		else
			printf '  %d s: %.90s\n' $((SECONDS - began)) "$line"
		fi
	done
}

# The end of a step's log, for a step that failed.
show_log() {
	tail -n "${2:-15}" "$logs/$1.log" | sed 's/^/  | /' >&2
}

# --- the machine --------------------------------------------------------------

# need_space DIRECTORY MEGABYTES PURPOSE
need_space() {
	local at=$1 free
	while [[ ! -d $at ]]; do at=$(dirname "$at"); done
	free=$(df -Pm "$at" | awk 'NR == 2 { print $4 }')
	((free >= $2)) ||
		die "$at has $free MB free and $3 needs $2 MB: make room and run this again"
}

check_fuse() {
	[[ -e /dev/fuse ]] || as_root modprobe fuse 2>/dev/null || true
	[[ -e /dev/fuse ]] ||
		die "there is no /dev/fuse: load the kernel's fuse module, or if this is a container," \
			"start it with --device /dev/fuse --cap-add SYS_ADMIN"
	[[ -r /dev/fuse && -w /dev/fuse ]] ||
		die "$(id -un) may not open /dev/fuse: run 'chmod 0666 /dev/fuse' as root, or run this as root"
}

need_distribution() {
	local ID='' VERSION_ID='' PRETTY_NAME='this system' oldest
	# shellcheck source=/dev/null
	[[ ! -r /etc/os-release ]] || . /etc/os-release
	case $ID in
	debian) oldest=12 ;;
	ubuntu) oldest=24.04 ;;
	*) oldest= ;;
	esac
	# Debian's testing and unstable have no number.
	if [[ ! $oldest ]] || ! dpkg --compare-versions "${VERSION_ID:-9999}" ge $oldest; then
		die "this knows the packages of Debian 12 and 13 and Ubuntu 24.04, not of $PRETTY_NAME:" \
			"install what contrib/lib.sh lists by hand, then build with meson and ninja"
	fi
}

# --- packages, continued ------------------------------------------------------

missing_packages() {
	local installed package
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null) || true
	for package; do
		grep -qxF "installed $package" <<<"$installed" || printf '%s\n' "$package"
	done
}

# Ask for what as_root needs while the user can still see the question: later
# sudo's output goes to a log. PURPOSE says what for.
root_ready() {
	((EUID != 0)) || return 0
	command -v sudo >/dev/null ||
		die "$1 needs root and there is no sudo here: run this as root," \
			"or have root do it: $2"
	! sudo -n true 2>/dev/null || return 0
	{ : </dev/tty; } 2>/dev/null ||
		die "$1 needs root, sudo asks for a password, and there is no terminal to ask on:" \
			"run 'sudo -v' first, or have root do it: $2"
	say "To do it, $1 needs root: sudo may ask for your password."
	sudo -v || die "$1 needs root and sudo refused it: have root do it: $2"
}

as_root() {
	if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Waits for another apt (a fresh cloud machine upgrades itself at boot), and
# does not wait for ever for a mirror.
apt_get() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
		-o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 \
		-o Dpkg::Use-Pty=0 "$@"
}

apt_network_words='Temporary failure resolving|Could not resolve|Could not connect|Cannot initiate the connection|Network is unreachable|Connection (failed|timed out)|Unable to connect'

# apt_failed NAME PURPOSE: end with one sentence about the log of an apt step.
apt_failed() {
	local log=$logs/$1.log
	if grep -qE "$apt_network_words" "$log"; then
		die "apt cannot reach its package mirror, so $2 cannot be fetched:" \
			"check the network (and the proxy, if there is one) and run this again"
	elif grep -qE "NO_PUBKEY|is not signed|BADSIG|signatures? (were|was|couldn't)" "$log"; then
		die "the package mirror's signature could not be checked, so $2 was not taken from it;" \
			"what apt said is in $log"
	elif grep -q 'No space left on device\|not have enough free space' "$log"; then
		die "the disk is full, so $2 cannot be unpacked: make room and run this again"
	fi
	show_log "$1"
	die "apt could not install $2; what it said is above and in $log"
}

# need_packages PURPOSE MEGABYTES SECONDS PACKAGE...: install those that are missing.
need_packages() {
	local what=$1 room=$2 takes=$3 missing
	shift 3
	mapfile -t missing < <(missing_packages "$@")
	((${#missing[@]})) || return 0
	need_distribution
	root_ready "installing packages" \
		"apt-get install --no-install-recommends ${missing[*]}"
	need_space /usr "$room" "installing packages"
	apt_update
	progress apt-install \
		"Installing packages to $what (about $takes s on a fast network): ${missing[*]}" \
		apt_get install -y --no-install-recommends "${missing[@]}" ||
		apt_failed apt-install "packages"
}

# Refresh apt's lists, once a run. A mirror that fails is told by the install
# that needs it, not here: an unrelated one may be down.
apt_updated=
apt_update() {
	[[ ! $apt_updated ]] || return 0
	progress apt-update "Refreshing the package lists (about 10 seconds)" apt_get update -q ||
		apt_failed apt-update "packages"
	apt_updated=1
}

# The package with the fuzzer's run-time library, which goes by the version of clang.
fuzz_runtime_package() {
	apt-cache depends clang | sed -n 's/^ *Depends: clang-\([0-9]*\)$/libclang-rt-\1-dev/p'
}

# --- libssh2 ------------------------------------------------------------------

have_libssh2() {
	PKG_CONFIG_PATH=$deps/lib/pkgconfig pkg-config --atleast-version=$libssh2_version libssh2 2>/dev/null
}

# The newest version that the system offers as a package; empty if unknown.
packaged_libssh2() {
	LC_ALL=C apt-cache policy libssh2-1-dev 2>/dev/null |
		sed -n 's/^ *Candidate: \([0-9].*\)/\1/p'
}

libssh2_patch_sum() {
	sha256sum "$top/contrib/libssh2.patch" | cut -c 1-16
}

# Is it the one that contrib/libssh2 would make, with the patch as it is now?
patched_libssh2() {
	[[ $(PKG_CONFIG_PATH=$deps/lib/pkgconfig pkg-config --variable=patch_sum libssh2) == "$(libssh2_patch_sum)" ]]
}

# contrib/libssh2 knows how to find the source in Debian's mirrors.
can_build_libssh2() {
	grep -qx 'ID=debian' /etc/os-release
}

need_libssh2() {
	local offered
	if have_libssh2 && { patched_libssh2 || ! can_build_libssh2; }; then return; fi
	need_distribution
	offered=$(packaged_libssh2)
	if [[ ! $offered ]]; then
		root_ready "refreshing the package lists" "apt-get update"
		apt_update
		offered=$(packaged_libssh2)
	fi
	if ! dpkg --compare-versions "${offered:-0}" ge $libssh2_version; then
		need_packages "build libssh2" 300 20 "${libssh2_packages[@]}"
		"$top/contrib/libssh2" "$deps" "$libssh2_version"
	elif can_build_libssh2; then
		need_packages "build libssh2" 300 20 "${libssh2_packages[@]}"
		"$top/contrib/libssh2" "$deps" "$libssh2_version" || {
			say "Taking the system's libssh2 instead: it works, but large files are slower"
			need_packages "speak SSH" 50 5 libssh2-1-dev
		}
	else
		need_packages "speak SSH" 50 5 libssh2-1-dev
	fi
	have_libssh2 || die "libssh2 $libssh2_version or newer was not found after it was installed:" \
		"see what 'pkg-config --modversion libssh2' says"
}

# --- building -----------------------------------------------------------------

# build DIRECTORY MESON-OPTION...: configure when needed, compile what changed.
# A directory that somebody configured by hand is used as it is.
build() {
	local dir=$top/$1 stamp=$top/$1/.setup-options options
	local name=$1
	shift
	local args=(-Dpkg_config_path="$deps/lib/pkgconfig" "$@")
	# The patch: what libssh2 can do is asked when configuring.
	options="$top ${args[*]} libssh2 $(libssh2_patch_sum)"
	if [[ ! -e $dir/build.ninja ]]; then
		progress "meson-$name" "Configuring $name/ (about 5 seconds)" \
			meson setup "${args[@]}" "$dir" "$top" || build_failed "meson-$name"
		printf '%s\n' "$options" >"$stamp"
	elif [[ -e $stamp && $(<"$stamp") != "$options" ]]; then
		progress "meson-$name" "Configuring $name/ anew (about 5 seconds)" \
			meson setup --wipe "${args[@]}" "$dir" "$top" || build_failed "meson-$name"
		printf '%s\n' "$options" >"$stamp"
	fi
	progress "ninja-$name" "Building $name/ (about 30 seconds the first time)" \
		ninja -C "$dir" || build_failed "ninja-$name"
}

build_failed() {
	show_log "$1" 30
	die "the build failed; the end of its log is above, all of it in $logs/$1.log"
}
