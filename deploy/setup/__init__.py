"""Set-up of a bare machine, the local stack and the test run; standard library only, started by `deploy/setup/run`."""
