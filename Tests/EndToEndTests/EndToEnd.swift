import Testing

/// Tests of the real programs on one installation: one after the other, since some of them kill its parts.
@Suite(.serialized) enum EndToEnd {}
