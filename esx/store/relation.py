async def order_unknown(connection, layout):  # type: ignore
    return None
