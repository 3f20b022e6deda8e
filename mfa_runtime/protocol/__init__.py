"""What an authority and its agents say to each other: the messages, their signatures and their seals.

Room rule: octets in, frozen values out, or :class:`~mfa_runtime.protocol.message.ProtocolError`. Nothing here opens a
connection, a store or a clock; ``authority/PROTOCOL.md`` says the same for people who write another side.
"""
