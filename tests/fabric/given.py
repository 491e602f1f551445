#!/usr/bin/env python3
"""The script of a DHCP client: notes what the client was given, as a line of JSON at the end of the file GIVEN.

dhclient names the event in `reason`, udhcpc in the first argument; both have the rest in variables. Nothing is configured:
a guest has its address from the test.
"""

import json
import os
import sys

event = os.environ.get("reason") or sys.argv[1]
with open(os.environ["GIVEN"], "a") as given:
    given.write(json.dumps({**os.environ, "event": event}) + "\n")
