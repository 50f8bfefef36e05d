#!/bin/sh
# Asks the store again and again and says how it went, if within four seconds, until there is a file /end.
until [ -e /end ]; do
	if timeout 4 wget -q -O /dev/null "http://$STORE:6379/" 2>/dev/null; then echo served; else echo refused; fi
	sleep 2
done
