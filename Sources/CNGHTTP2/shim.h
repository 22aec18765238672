// The door to nghttp2: HTTP/2 framing (RFC 9113).
#pragma once
#include <nghttp2/nghttp2.h>
