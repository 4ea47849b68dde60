#!/bin/sh
echo "Contents of MSG: $MSG"
sleep 2
echo "Environment:"
env
