// The door to zlib. deflateInit2 and inflateInit2 are macros that pass the size of the structure.
#pragma once
#include <zlib.h>

static inline int hc_deflate_init(z_stream *stream, int level, int windowBits, int memoryLevel) {
    return deflateInit2(stream, level, Z_DEFLATED, windowBits, memoryLevel, Z_DEFAULT_STRATEGY);
}
static inline int hc_inflate_init(z_stream *stream, int windowBits) { return inflateInit2(stream, windowBits); }
