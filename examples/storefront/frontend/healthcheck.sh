#!/bin/bash
# Docker's HEALTHCHECK with nothing but bash: exit 0 when the front end is ready.
exec 2> /dev/null
exec 3<> /dev/tcp/127.0.0.1/8080 || exit 1
printf 'GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r -t 2 line <&3
[[ $line == *" 200 "* ]]
