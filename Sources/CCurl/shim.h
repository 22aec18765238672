// The door to libcurl: outbound HTTP. curl_easy_setopt and getinfo are variadic: one typed wrapper per argument kind.
#pragma once
#include <curl/curl.h>

typedef size_t (*hc_curl_data_callback)(char *data, size_t size, size_t count, void *context);

static inline CURLcode hc_curl_set_long(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_string(CURL *handle, CURLoption option, const char *value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_pointer(CURL *handle, CURLoption option, void *value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_set_callback(CURL *handle, CURLoption option, hc_curl_data_callback value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode hc_curl_get_long(CURL *handle, CURLINFO info, long *value) {
    return curl_easy_getinfo(handle, info, value);
}
