// The door to libpq (PostgreSQL 15, chapter 34).
#pragma once
#include <libpq-fe.h>
