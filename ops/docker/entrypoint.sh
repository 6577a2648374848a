#!/bin/sh
# Runs a process of ours and fits its exit code to a restart policy that knows only "ended": a fresh start helps after
# 69, 70 and 75, so those end the container. After 2, 66, 76, 77 and 78 a person must act first: the container stays, with
# the reason in its log and its health check failing, until it is stopped or restarted.
"$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM INT
wait "$child"
code=$?
while kill -0 "$child" 2>/dev/null; do # a signal ends the wait, not the child
  wait "$child"
  code=$?
done
case $code in
  2 | 66 | 76 | 77 | 78) ;;
  *) exit "$code" ;;
esac
echo "entrypoint: ended with $code: a restart would not help. Mend it, then restart the container." >&2
trap 'exit "$code"' TERM INT
while :; do
  sleep 3600 &
  wait $!
done
