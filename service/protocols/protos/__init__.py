"""Messages of remote procedure calls: `.proto` texts, and the modules made of them.

This is the one place that imports protobuf. Only the gRPC entry point and its tables of calls import it, so that
a service without gRPC needs no protobuf.
"""
