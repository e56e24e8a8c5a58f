"""Where files lie: on a disk or in an object store. The map of its files, from callers to what they call.

One way in        store (open_store)
On a disk         local_store -> whole_files, which are there whole or not at all; alone, who works in a folder
Over a network    object_store -> object_fetches, coalesce (which bytes one request fetches)
                  -> object_requests -> object_tries, object_clients -> aws_profile
While one waits   at_once (several waits together), wanted (whether an answer still is), kept (what need not come again)
URLs of many      braces
"""
