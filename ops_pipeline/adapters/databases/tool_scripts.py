"""The small shells that start a tool in a container, once a line of ours tells them to, and end it when we are gone."""

from __future__ import annotations

READ_END, WRITE_END = 9, 8

# Reads its input: it takes over the shell's place. Byte for byte, so nothing behind the first line is lost.
FED = 'read -r _ || exit 125; exec "$@"'

# Needs no input: the shell stays and watches for the connection's end.
WATCHED = """\
exec 3<&0
read -r _ <&3 || exit 125
"$@" </dev/null 3<&- & tool=$!
{ while read -r _; do :; done; kill -9 "$tool"; } <&3 3<&- >/dev/null 2>&1 & watch=$!
exec 3<&-
wait "$tool"; code=$?
kill -9 "$watch" 2>/dev/null; wait "$watch" 2>/dev/null
exit "$code"
"""

# A pipe that nobody else has: the write end is opened anew from the read end. Both stay open here until we hold the
# read end; then the tool alone writes, so the pipe ends when it does, and it is told when we are gone.
PIPED = f"""\
exec 3<&0
: | {{
exec {READ_END}<&0 {WRITE_END}>/proc/self/fd/0 </dev/null
read -r _ <&3 || exit 125
"$@" </dev/null >&{WRITE_END} 3<&- {WRITE_END}>&- {READ_END}<&- & tool=$!
{{ while read -r _; do :; done; kill -9 "$tool"; }} <&3 3<&- {WRITE_END}>&- {READ_END}<&- >/dev/null 2>&1 & watch=$!
exec 3<&- {WRITE_END}>&- {READ_END}<&-
wait "$tool"; code=$?
kill -9 "$watch" 2>/dev/null; wait "$watch" 2>/dev/null
exit "$code"
}}
"""

# Everything that has the mark in its environment.
KILL = 'for file in $(grep -lsF "$0" /proc/[0-9]*/environ); do p=${file#/proc/}; kill -9 "${p%/environ}"; done; :'
