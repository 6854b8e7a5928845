"""The contract: requests, responses, the OpenAPI document."""
