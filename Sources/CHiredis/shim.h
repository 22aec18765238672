// The door to hiredis 0.14: its reply reader and command formatter only; the sockets are ours.
#pragma once
#include <hiredis/hiredis.h>
